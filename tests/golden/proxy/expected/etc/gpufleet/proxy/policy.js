// What token.js and proxy.js go by: public keys, names, nothing secret.
export default {
    "admins": [
        "CN=gpu-validate"
    ],
    "token": null
};
