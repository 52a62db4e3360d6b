"""How a network learns: data, the recipe, the trainer."""
