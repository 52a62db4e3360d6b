"""Where runs live: every trial, measurement and set of weights, from the moment it is known."""
