"""Which sizes are best under a budget: enumerate, estimate, measure by masks, retrain the finalists a little, and keep what wins."""
