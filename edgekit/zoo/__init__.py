"""Small reference models that come with their trained weights."""
