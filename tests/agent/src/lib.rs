//! dawn-test-agent
