"""Networks explained and changed by what people say of a few images."""
