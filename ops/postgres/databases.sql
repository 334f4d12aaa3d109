-- The prediction log is in the database `taxi`, MLflow's runs and registry in one of their own.
CREATE DATABASE mlflow;
