"""The forward motion F, distilled from a head model's backward field for one person."""
