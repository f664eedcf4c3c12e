"""Static files, compression, and the vendored browser libraries."""
