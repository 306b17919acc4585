"""From words to tokens and to what workers are asked: scenarios, templates, plans."""
