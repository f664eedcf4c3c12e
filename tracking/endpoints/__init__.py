"""Public WSGI endpoints: pixels, redirects, the page script and its beacons."""
