"""What the live demo is made of: sources, models in turn, the loop, the window, the page."""
