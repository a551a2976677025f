"""Training of the models that learn: data, networks and recipes."""
