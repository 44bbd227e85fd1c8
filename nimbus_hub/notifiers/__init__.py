"""Ways for notices to reach people; plug-ins add others."""
