"""`baton plan`: the cheapest fleet for a traffic and its objectives, and how near it is to the edge."""
