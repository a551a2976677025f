"""Plans of radiotherapy guidelines: numbers, anatomical barriers, margins along the shortest way around them."""
