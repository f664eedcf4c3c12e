"""The web framework layer: application factory, security, localisation, assets and page components."""
