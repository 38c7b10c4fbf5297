"""Training fakes: real batch in; fake batch, mask and the recipe of how out."""
