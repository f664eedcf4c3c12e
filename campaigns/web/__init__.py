"""The web framework layer: application factory, web server, security, localisation, assets and page components."""
