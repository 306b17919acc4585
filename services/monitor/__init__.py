"""Watches the fleet, owns the map, replaces whoever falls. The dashboard is its face."""
