"""Parameters of a request, from a form, a query string or a command line, to values."""
