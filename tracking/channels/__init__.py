"""Channel groups of visits, referrers, and the UTM lint."""
