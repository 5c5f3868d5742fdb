"""Networks that answer questions about images: which regions and which words an answer rests on."""
