"""A seeded world to demonstrate and test Clip Courier with: people, their consent, and clips with audible speech."""
