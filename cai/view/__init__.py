"""What people read: terminal transcripts and reports."""
