"""Clip Courier: lawful samples of voice clips to transcription vendors, and their transcripts back."""
