"""Other ways to make a picture follow its prompt, each from its paper: what AsynDM's paper compares itself with."""
