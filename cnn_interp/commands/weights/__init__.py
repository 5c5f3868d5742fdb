"""See which pretrained weights there are, and get them."""
