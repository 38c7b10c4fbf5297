"""`veriframe bench`: what a video costs here, beside the loop that people use today, in one run on one machine."""
