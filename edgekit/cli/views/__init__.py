"""What a person sees: progress, tables, messages. Only this folder imports rich."""
