"""Branch attention: which of several branches, or kernels, matters."""
