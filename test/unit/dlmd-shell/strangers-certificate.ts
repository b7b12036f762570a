/** A self-signed certificate of nobody, for those who come without the cluster's key. */

const key = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgBMC+W/TS9Hjs3EtD
1nUri7Y4DbSMxjgRlEIcUqPkjxahRANCAATkdoEdFVmZ3Xn4dc7flOU49X42B1pU
jQ79Hp2dPJ1i+nijyC0ycu9TI5Hjqmo0YVq1avz6U32KteHIV2G1IjZ+
-----END PRIVATE KEY-----`;
const cert = `-----BEGIN CERTIFICATE-----
MIIBfTCCASOgAwIBAgIUBugWxiQpdKrcyUx8YzHzbz+2cFwwCgYIKoZIzj0EAwIw
EzERMA8GA1UEAwwIc3RyYW5nZXIwIBcNMjYxMTIwMTEwNTQwWhgPMjEyNjEwMjcx
MTA1NDBaMBMxETAPBgNVBAMMCHN0cmFuZ2VyMFkwEwYHKoZIzj0CAQYIKoZIzj0D
AQcDQgAE5HaBHRVZmd15+HXO35TlOPV+NgdaVI0O/R6dnTydYvp4o8gtMnLvUyOR
46pqNGFatWr8+lN9irXhyFdhtSI2fqNTMFEwHQYDVR0OBBYEFLhEOhXfCNNoPb4b
wHxgwGqqoBQZMB8GA1UdIwQYMBaAFLhEOhXfCNNoPb4bwHxgwGqqoBQZMA8GA1Ud
EwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIhALJ/tBNOJR5ZrU3hvBwlrUuC
3fnFwsVmEyVechw6EQmoAiAl5G2erXAKScb8ZHPK5VBQabTl3fBIadcuz0avK1Fx
Ug==
-----END CERTIFICATE-----`;

export const strangersCertificate: { readonly key: string; readonly cert: string } = { key, cert };
