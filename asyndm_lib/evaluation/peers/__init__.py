"""Other methods that make a picture follow its prompt, each from its paper. AsynDM's paper compares
itself with them."""
