"""What building an extension against rtpool needs to know."""
