"""How long an engine computes: timings by formula, profiles with what else is to be known of an instance."""
