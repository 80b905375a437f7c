"""Numbers and pictures for people: formatting, figures, the HTML report."""
