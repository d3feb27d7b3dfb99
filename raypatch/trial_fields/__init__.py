"""Fields of a trial that belong together, with the rules among them; config.py makes a TrialConfig of them."""
