-- Where devices can be dialled, as the control plane says: apart from what nodes say of themselves.
ALTER TABLE control_devices ADD COLUMN addresses TEXT NOT NULL DEFAULT '[]';
