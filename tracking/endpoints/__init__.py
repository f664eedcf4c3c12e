"""Public WSGI endpoints: open pixels, link redirects, the page script and its reports."""
