"""What it takes to run the service for others: Prometheus, Grafana, and a check of the two."""
