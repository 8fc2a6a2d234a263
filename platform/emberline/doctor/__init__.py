"""What this machine has and lacks, and what each lack costs."""
