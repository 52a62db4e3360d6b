"""What a board needs beside the agent. It comes with every installation, as the package `edgenas_deploy`."""
