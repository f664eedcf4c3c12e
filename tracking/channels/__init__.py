"""Channel groups of visits, referrer classification, and the UTM lint."""
