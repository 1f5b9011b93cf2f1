"""Load tests of a running service: open-loop arrivals on Locust, profiles compared in one run."""
