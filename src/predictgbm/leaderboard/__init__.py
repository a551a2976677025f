"""A leaderboard: several runs on the same patients merged, compared anew, and shown as one static site."""
