"""Repair: surviving weights are fitted anew so that the cut network gives what the uncut one gave. Forward passes, same shapes."""
