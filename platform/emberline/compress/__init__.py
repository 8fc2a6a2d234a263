"""From a trained model to artifacts that are smaller and faster, with proof, measurement and gates."""
