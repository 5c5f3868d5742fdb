"""The commands of ``interpretkit cnn diagnose``: for each check a module that reads its options and runs it."""
