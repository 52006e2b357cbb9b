"""Right normalization layers written in hundreds of ways, and each core fault planted into some of them."""
