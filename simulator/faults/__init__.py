"""What breaks, and when: devices that die, instances that are only slow or frozen. Seeded."""
