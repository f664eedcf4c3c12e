"""Page components shared by all packages: pagination, tables, errors, polling, streams."""
