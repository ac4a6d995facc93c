package cli

// commands is the command table, in the order in which "fairlead help" shows it.
func commands() []*Command {
	return []*Command{
		serveCommand(),
		demoCommand(),
		tailCommand(),
		whyCommand(),
		showCommand(),
		verifyCommand(),
		proveCommand(),
		approveCommand(),
		policyGroup(),
		analyzeCommand(),
		limitsCommand(),
		keyCommand(),
		configCommand(),
		doctorCommand(),
		versionCommand(),
		exitCodes(),
	}
}
