//! dawn-mcp
