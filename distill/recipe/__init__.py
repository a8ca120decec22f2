"""Every setting of a recipe: read, checked, and worded where it is wrong."""
